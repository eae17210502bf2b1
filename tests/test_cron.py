"""Six fields, seconds first: when they fire, and what is refused before a server sees it."""

from datetime import UTC, datetime

import pytest

from adabert_core.errors import UserError
from pipelines.cron import parse_cron


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("line", "moment", "fires"),
    [
        ("0 0 3 * * *", "2026-11-22T02:59:59", "2026-11-22T03:00:00"),
        ("0 0 3 * * *", "2026-11-22T03:00:00", "2026-11-23T03:00:00"),
        ("30 15 3 ? * ?", "2026-12-31T12:00:00", "2027-01-01T03:15:30"),
        ("0 */20 9-10 * * *", "2026-11-22T09:40:00", "2026-11-22T10:00:00"),
        ("0 10/25 8 * * *", "2026-11-22T08:10:00", "2026-11-22T08:35:00"),
        ("0 0 0 29 2 *", "2026-01-01T00:00:00", "2028-02-29T00:00:00"),
        ("0 0 9 ? * MON-FRI", "2026-11-21T10:00:00", "2026-11-23T09:00:00"),  # from a Saturday
        ("0 0 9 * jan,JUL sun", "2026-11-21T10:00:00", "2027-01-03T09:00:00"),
        ("0 0 9 1 * 3", "2026-11-22T00:00:00", "2026-11-25T09:00:00"),  # both day fields given: either will do
        ("0 0 9 1 * 3", "2026-11-26T00:00:00", "2026-12-01T09:00:00"),
    ],
)
def test_fires_when_robfig_cron_does(line: str, moment: str, fires: str) -> None:
    assert parse_cron(line).after(at(moment)) == at(fires)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("0 3 * * *", 'did you mean "0 0 3 * * *"?'),  # five fields would be every hour
        ("@daily", "six fields"),
        ("", "six fields"),
        ("0 0 3 * * * 2027", "six fields"),
        ("0 0 24 * * *", 'hour "24" is not within 0-23'),
        ("0 60 3 * * *", 'minute "60" is not within 0-59'),
        ("0 0 3 0 * *", 'day of month "0" is not within 1-31'),
        ("0 0 3 * 13 *", 'month "13" is not within 1-12'),
        ("0 0 3 * * 7", 'day of week "7" is not within 0-6'),
        ("0 0 5-3 * * *", 'hour "5-3"'),
        ("0 */0 3 * * *", 'minute "*/0"'),
        ("0 0 3 * * noday", 'day of week "noday" is not a value'),
        ("0 0 3 JAN * *", 'day of month "JAN" is not a value'),
        ("0 0 -1 * * *", 'hour "-1" is not a value'),
        ("0 0, 3 * * *", 'minute "" is not a value'),
        ("* 0 3 * * *", "60 times a minute"),
        ("0 0 3 31 2 *", "no such date"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(line: str, sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        parse_cron(line)
    assert sentence in str(refused.value)
    assert line in str(refused.value)
