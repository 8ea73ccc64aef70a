"""`python -m launch`: the command line, from a checkout that is not installed."""

from launch.cli import main

if __name__ == "__main__":
    main()
