import a_library_from_the_future  # noqa: F401
