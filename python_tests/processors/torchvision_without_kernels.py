"""A pytest plugin: torchvision whose compiled part does not suit this torch, such as a CUDA build
beside a torch for CPUs. Processors resize and normalise only, which torch does for it; but
importing it describes operators to torch that are then not there.
"""

import sys
import types

sys.modules["torchvision._meta_registrations"] = types.ModuleType("torchvision._meta_registrations")
