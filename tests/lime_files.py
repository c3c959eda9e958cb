"""What tests of configuration files share: LIME files taken apart and put together, and reading without a warning."""

import contextlib
import warnings

from flowqcd.io import lime, source


@contextlib.contextmanager
def silence():
  """No warning passes."""
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    yield


def records(path):
  """Pairs of type and content of a LIME file."""
  with source.opened(path) as file:
    contents = []
    for record in (record for message in lime.index(file) for record in message):
      file.seek(record.start)
      contents.append((record.type, file.read(record.length, record.type)))
  return contents


def write(path, *messages):
  with open(path, "wb") as handle:
    for each in messages:
      lime.write(handle, each)
