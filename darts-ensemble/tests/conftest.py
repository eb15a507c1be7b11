import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Networks as small as these are slower on two threads, all the more where tests share the machine."""
    torch.set_num_threads(1)
