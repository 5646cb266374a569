"""State machines that look for the shortest sequence of steps that breaks a promise."""

import pytest

pytest.register_assert_rewrite("tests.model.store_model")
