"""Running configs: training, evaluation and prediction."""
