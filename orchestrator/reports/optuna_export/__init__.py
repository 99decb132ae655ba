"""A sweep as studies of Optuna: trials, arms and axes as its dashboards and importances want them."""

__all__: list[str] = []
