"""What tests need that not every machine has, each named where a test is skipped for it."""

import shutil

import pytest
import torch
from torch._inductor import config as inductor

_CXX = inductor.cpp.cxx[-1]  # the compiler that PyTorch would take

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
needs_cxx = pytest.mark.skipif(not shutil.which(_CXX), reason=f"{_CXX} is not installed")
