"""`python -m adapterprobe.cli`."""

import sys

from adapterprobe.cli import main

sys.exit(main())
