import sys
from pathlib import Path
from trainlab.sweeps import definition, slots, worker
worker.lead(definition.load("rs", Path("logs")), slots=slots.find(2, gpus=False), logs=Path("logs"))
