"""placeholder"""


class Demo: ...


def run(x): ...
