"""`python -m flowqcd STAGE ...`."""

from flowqcd import command_line

if __name__ == "__main__":
  command_line.main()
