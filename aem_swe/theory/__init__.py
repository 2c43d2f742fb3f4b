"""The theorems of AEM (arXiv 2605.00425), checked on policies that are small enough to enumerate every response.

1) A check has two sides that are computed in two ways: a sum over all outcomes, or a finite difference, against what
   the paper states. Both in float64; `aem-swe verify theory` draws many random policies and reports the largest error.
2) A control is the same comparison with one ingredient replaced by a wrong one. It has to fail, and visibly.
3) A check of numbers is no proof: it finds a wrong sign, factor or condition, and says under which condition a
   statement holds.
Not covered: sampling error, clipping, finite step sizes, optimisers other than the natural gradient.
"""

from aem_swe.theory.run import BOUND, CONTROL_BOUND, Result, verify

__all__ = ["BOUND", "CONTROL_BOUND", "Result", "verify"]
