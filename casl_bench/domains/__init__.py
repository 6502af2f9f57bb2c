"""A data set with the models that go with it."""
