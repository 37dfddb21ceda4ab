"""Detectors as a server: FastAPI and uvicorn around one model. The extra `adapterprobe[serve]`."""
