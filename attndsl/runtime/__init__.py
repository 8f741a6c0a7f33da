"""Compiled programs as PyTorch operators: binding, checks, stages, registration."""
