"""What a run is: frozen dataclasses, their JSON, overrides and presets. Pure data, no JAX."""
