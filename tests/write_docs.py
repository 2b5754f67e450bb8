"""Write the generated pages of the documentation anew: `python -m tests.write_docs`."""

import tempfile
from pathlib import Path

from tests.test_docs import DOCS, help_page

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        (DOCS / "cli.md").write_text(help_page(Path(home)), encoding="utf-8")
