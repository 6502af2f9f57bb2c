"""What CASL is compared with, controls included: a file a method, on the public interface.

Every module here is found by name when a run starts; nothing in `casl_bench` imports it.
"""
