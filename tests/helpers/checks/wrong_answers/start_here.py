"""Lesson 00: wrong answers that readers give, and a part of the hint that each should get."""

WRONG = {
    "start_here.numbers_in_the_table": [
        (13, "added"),
        (3, "one of the two sizes"),
        (31, "ten rows with three"),
        ("30", "should be a number"),
    ],
}
