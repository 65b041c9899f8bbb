"""Makes the outputs of the notebook here anew, after a change of it or of what it uses (some minutes).

    python -m experiments.notebooks.execute

Outputs are kept in git, because a reader sees them without running anything, and they are small: text and two pictures. What
would differ from run to run without telling anything (times) is left out.
"""

import os
import pathlib
import tempfile

import nbformat
from nbclient import NotebookClient

NOTEBOOK = pathlib.Path(__file__).with_name('reward_ablation.ipynb')


def execute(folder: pathlib.Path, timeout_s: float = 3600) -> nbformat.NotebookNode:
    """Returns the notebook as a new kernel that runs in `folder` leaves it; raises nbclient's errors for cells that fail."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(
        notebook, timeout=timeout_s, record_timing=False, resources={'metadata': {'path': str(folder)}})
    return client.execute()


if __name__ == '__main__':
    # Arms that an earlier run has left would be taken for today's; and libtpu, where installed, complains of having no TPU.
    os.environ.setdefault('JAX_PLATFORMS', 'cpu')
    with tempfile.TemporaryDirectory() as folder:
        nbformat.write(execute(pathlib.Path(folder)), NOTEBOOK)
