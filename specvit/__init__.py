"""What a trial computes: models, data, pretraining recipes, probes. Nothing here knows of sweeps.

``config.TrialConfig`` says everything that decides a trial's numbers, ``trial.run_trial`` computes them;
``checkpoints`` holds trained models in files. Importing this imports nothing, and settings load without torch.
"""

__all__: list[str] = []
