from adabert_core.data.news_pairs import articles, pairs

RAIN = "\n\n".join(
    (
        "Rain floods the valley",
        "Heavy rain fell on the valley all night long. Three bridges are closed today.",
        "The river rose by two metres within a day. Farmers lost most of the early harvest there.",
    )
)
VOTE = "\n\n".join(
    (
        "Voters choose a mayor",
        "The city voted for a new mayor on Sunday evening. Her party won by a few votes.",
        "The new mayor wants more buses and fewer cars. She starts in the town hall next week.",
    )
)


def test_first_paragraph_is_the_headline_and_an_article_told_twice_counts_once():
    found = articles([RAIN, VOTE, RAIN.replace("Rain floods", "Again rain floods"), "Headline\n\nToo short."])
    assert [headline for headline, _ in found] == ["Rain floods the valley", "Voters choose a mayor"]
    assert [len(paragraphs) for _, paragraphs in found] == [2, 2]


def test_statements_meet_passages_of_their_own_and_of_another_article():
    rows = pairs(articles([RAIN, VOTE]))
    assert len(rows) == len(set(rows))
    own = [(passage, statement) for passage, statement in rows if (passage in RAIN.replace("\n\n", " ")) == (statement in RAIN)]
    assert 0 < len(own) < len(rows)
    assert any(statement in passage for passage, statement in own)
    assert any(statement not in passage for passage, statement in own)
    assert {"Rain floods the valley", "Voters choose a mayor"} <= {statement for _, statement in rows}


def test_pairs_depend_on_the_seed_alone():
    found = articles([RAIN, VOTE])
    assert pairs(found) == pairs(found, seed=0)
    assert pairs(found) != pairs(found, seed=1)
