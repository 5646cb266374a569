"""A serializability checker for histories of many processes, after Elle's list-append.

`history` holds what was recorded, `graph` who depends on whom, `analysis` says what is wrong with it:

    anomalies = check(transactions)

Kingsbury and Alvaro, "Elle: Inferring Isolation Anomalies from Experimental Observations", VLDB 2020
(https://arxiv.org/abs/2003.10554).
"""

from tests.checker.analysis import Anomaly, check
from tests.checker.history import Append, Read, Status, Transaction, load, save

__all__ = ["Anomaly", "Append", "Read", "Status", "Transaction", "check", "load", "save"]
