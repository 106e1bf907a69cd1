"""What the planner counts of a config, under one name: parameters, FLOPs, bytes."""

from planner.flops import (
    ExecutedFlops,
    TrainingFlops,
    chinchilla_params,
    executed_flops_per_step,
    forward_flops_chinchilla,
    matmul_params_per_place,
    training_flops_per_row,
    training_flops_per_token,
)
from planner.memory import TrainingBytes, kv_cache_bytes, training_bytes
from planner.parameters import (
    ParameterSpec,
    active_params,
    matmul_params,
    non_embedding_params,
    parameters,
    total_params,
)

__all__ = [
    "ExecutedFlops",
    "ParameterSpec",
    "TrainingBytes",
    "TrainingFlops",
    "active_params",
    "chinchilla_params",
    "executed_flops_per_step",
    "forward_flops_chinchilla",
    "kv_cache_bytes",
    "matmul_params",
    "matmul_params_per_place",
    "non_embedding_params",
    "parameters",
    "total_params",
    "training_bytes",
    "training_flops_per_row",
    "training_flops_per_token",
]
