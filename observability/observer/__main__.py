"""`python -m observability.observer`."""

import sys

from observability.observer.main import main

sys.exit(main())
