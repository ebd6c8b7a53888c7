"""The peers' bench behind `fastgrad bench`: models as data, contestants in processes of their own, rounds, a report.

Contestants load this package alone, under another name (see `contestant.py`), so that importing fastgrad is paid by
fastgrad's own contestants only. What they use (`models`, `timing`, `with_*`) imports nothing else of fastgrad.
"""
