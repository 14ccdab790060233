"""`python -m simsiam`, which torchrun starts."""

from simsiam.cli import main

if __name__ == "__main__":
    main()
