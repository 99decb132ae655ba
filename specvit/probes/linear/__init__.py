"""The linear probe of [CLS] and the mean patch."""
