"""The kernel search in a fraction of its time, for tests that do not judge the kernels it finds."""

from functools import partial
from unittest.mock import patch

from bd_diff.reading import kernel_search


def short_search():
    """A context in which three starts are followed instead of twelve, and two hypotheses kept instead of five."""
    few = partial(kernel_search.search_kernels, starts=kernel_search.STARTS[:3], kept=(2, 2, 3))
    return patch.object(kernel_search, "search_kernels", few)
