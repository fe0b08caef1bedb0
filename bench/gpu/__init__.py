"""The GPU day: everything that needs a GPU, in one program (bench/gpu_day.py)."""
