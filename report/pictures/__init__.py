"""Pictures of what a model does, from plain arrays: PNG by matplotlib, HTML without any network."""
