"""What select, numpy.select, attach, plan and the command line do unless told otherwise.

Chosen by bench/quality/study.py; the numbers behind each are in bench/quality/README.md. The C API
has the same ones (csrc/c_api/params.cpp), and distributed.select all but redundancy, which it does
without. The operators (mi_pruner_cuda.ops, torch.ops.mipruner) and the reference are the bare
equations: redundancy and coverage are 0 there unless given.
"""

from .budget import Mass

ESTIMATOR = "specific"
TEMPERATURE = 0.1
REDUNDANCY = 1.0
COVERAGE = 0.25


def choice(keep, redundancy: float | None, coverage: float | None) -> tuple[float, float]:
    """Redundancy and coverage, each as given, or for None its default.

    With keep=Mass(share) that is 0: only the best rows by relevance hold the share.
    """
    by_relevance = isinstance(keep, Mass)
    if redundancy is None:
        redundancy = 0.0 if by_relevance else REDUNDANCY
    if coverage is None:
        coverage = 0.0 if by_relevance else COVERAGE
    return redundancy, coverage
