"""The code of Markdown pages: Python as files of their own, for a type checker, and commands as their words.

snippets.py FOLDER PAGE...: blocks of each page, in a folder of its own.
"""

import pathlib
import re
import shlex
import sys


def blocks(text: str, language: str = "python") -> list[str]:
  """The content of all fenced blocks that are marked as this language."""
  return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def file_name(block: str) -> str | None:
  """The file that a block of Python is, by a first line such as `# my_flow.py`; None for one that is for the prompt."""
  found = re.match(r"# (\w+\.py)\n", block)
  return found[1] if found else None


def commands(text: str) -> list[list[str]]:
  """The words of each command in blocks of shell, without comments; a line that ends with a backslash goes on."""
  lines = "".join(blocks(text, "sh")).replace("\\\n", " ").splitlines()
  return [words for line in lines if (words := shlex.split(line, comments=True))]


def main(folder: str, *pages: str) -> None:
  for page in map(pathlib.Path, pages):
    path = pathlib.Path(folder) / page.stem
    path.mkdir(parents=True, exist_ok=True)
    for old in path.glob("*.py"):
      old.unlink()
    for i, block in enumerate(blocks(page.read_text())):
      (path / (file_name(block) or f"snippet_{i}.py")).write_text(block)


if __name__ == "__main__":
  main(*sys.argv[1:])
