"""Grading: other people's notebooks, checked by the engine without trusting them.

1. `submissions` finds whose notebook is where; 2. `definitions` cuts each answer, and what it calls, out of a notebook;
3. `inmate` runs it in a process of its own, which `cage` has locked; 4. `remote` makes that process look like a
function, so that the very check that students meet can examine it from outside; values cross by `wire`, never by
pickle; 5. `marks` grades one notebook; 6. `table` grades all of them, resumes, and writes the CSV.

The verdict is reached where no student's code runs: the process of the answer is given arguments and gives back
results. It knows no expected result and cannot read the reference answers.
"""
