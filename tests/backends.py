"""The backends that tests run on."""

BACKENDS = ("serial", "threads", "processes", "multiprocessing", "loky", "joblib")
PROCESS_BACKENDS = ("processes", "multiprocessing", "loky", "joblib")
START_METHODS = ("fork", "forkserver", "spawn")
