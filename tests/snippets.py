"""The Python of a Markdown file as files of their own, for a type checker: snippets.py FILE FOLDER."""

import pathlib
import re
import sys


def blocks(text: str) -> list[str]:
  """The code of all fenced blocks that are marked as Python."""
  return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def main(source: str, folder: str) -> None:
  path = pathlib.Path(folder)
  path.mkdir(parents=True, exist_ok=True)
  for old in path.glob("snippet_*.py"):
    old.unlink()
  for i, block in enumerate(blocks(pathlib.Path(source).read_text())):
    (path / f"snippet_{i}.py").write_text(block)


if __name__ == "__main__":
  main(*sys.argv[1:])
