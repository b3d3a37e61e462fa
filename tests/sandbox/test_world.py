"""The world a sandbox begins with."""

from mautic_sync.sandbox import Sandbox


def rows(client, sql):
    return client.sandbox.instance.tables.rows(sql)


def value(client, sql):
    return client.sandbox.instance.tables.value(sql)


def test_it_holds_the_contacts_asked_for_in_order_of_creation(world):
    assert [r["id"] for r in rows(world, "SELECT id FROM leads ORDER BY date_added, id")] == list(range(1, 401))


def test_most_are_anonymous_and_some_have_bought(world):
    assert 0.55 < value(world, "SELECT AVG(date_identified IS NULL) FROM leads") < 0.75
    assert value(world, "SELECT COUNT(*) FROM leads WHERE orders_count > 0") > 0
    assert (
        value(
            world, "SELECT COUNT(*) FROM lead_tags_xref x JOIN lead_tags t ON t.id = x.tag_id WHERE t.tag = 'customer'"
        )
        > 0
    )
    assert value(world, "SELECT COUNT(*) FROM form_submissions WHERE form_id = 2") > 0
    assert value(world, "SELECT COUNT(*) FROM page_hits WHERE url LIKE '%/order/thank-you%'") > 0


def test_feeds_run_in_time_order(world):
    for table, date in (("page_hits", "date_hit"), ("audit_log", "date_added"), ("email_stats", "date_sent")):
        dates = [r["d"] for r in rows(world, f"SELECT {date} AS d FROM {table} ORDER BY id")]
        assert dates == sorted(dates)


def test_nothing_happens_before_the_contact_or_after_now(world):
    assert (
        value(
            world, "SELECT COUNT(*) FROM page_hits h JOIN leads l ON l.id = h.lead_id WHERE h.date_hit < l.date_added"
        )
        == 0
    )
    now = world.sandbox.instance.now
    assert value(world, f"SELECT COUNT(*) FROM page_hits WHERE date_hit > '{now}'") == 0
    assert (
        value(
            world,
            "SELECT COUNT(*) FROM leads l WHERE last_active < (SELECT MAX(date_hit) FROM page_hits h WHERE h.lead_id = l.id)",
        )
        == 0
    )


def test_points_are_what_their_log_says(world):
    stats = world.sandbox.stats()["points"]
    assert stats
    assert all(p["points"] == p["logged"] for p in stats.values())


def test_a_foreign_stage_holds_a_few_and_no_managed_one_exists(world):
    assert [s["name"] for s in world.get("/api/stages")["stages"]] == ["Partner"]
    assert world.sandbox.stats()["stages"]["Partner"] > 0


def test_every_feed_of_a_shop_has_rows(world):
    tables = (
        "page_hits email_stats email_stat_replies form_submissions asset_downloads lead_devices lead_donotcontact "
        "lead_points_change_log lead_stages_change_log lead_event_log campaign_lead_event_log lead_utmtags "
        "lead_lists_leads campaign_leads page_redirects audit_log"
    )
    for table in tables.split():
        assert world.get(f"/api/stats/{table}", params={"limit": 1})["total"] != "0", table


def test_the_same_seed_makes_the_same_world():
    def people(seed):
        sandbox = Sandbox(contacts=60, seed=seed)
        found = sandbox.instance.tables.rows("SELECT id, email, firstname, points, orders_count FROM leads ORDER BY id")
        sandbox.stop()
        return found

    assert people(5) == people(5) != people(6)


def test_activities_can_be_asked_for():
    sandbox = Sandbox(contacts=300, activities_per_contact=12)
    count = sum(
        sandbox.instance.tables.value(f"SELECT COUNT(*) FROM {t}")
        for t in ("page_hits", "email_stats", "asset_downloads")
    )
    sandbox.stop()
    assert 8 < count / 300 < 18
