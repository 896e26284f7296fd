"""What of the driver's environment the tasks need to reach object stores; handed over with the work, never logged."""

import os

PREFIXES = ("AWS_", "AZURE_", "GOOGLE_", "CLOUDSDK_", "GCE_METADATA_", "HF_", "HUGGING_FACE_")
NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


class Credentials:
    """Environment variables of object stores and the proxies on the way to them; their values are never shown."""

    def __init__(self, variables: dict[str, str]):
        self._variables = variables

    @staticmethod
    def of_driver() -> "Credentials":
        return Credentials({k: v for k, v in os.environ.items() if k.startswith(PREFIXES) or k in NAMES})

    def use(self) -> None:
        """From now on this process has them."""
        os.environ.update(self._variables)

    def __repr__(self) -> str:
        return f"Credentials({', '.join(self._variables)})"
