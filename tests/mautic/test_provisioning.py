from __future__ import annotations

import json
from urllib.parse import parse_qsl, urlsplit

import pytest

from mautic_sync.errors import RefusedError, StopError
from mautic_sync.mautic import provisioning

BASE = "https://mautic.example"


def sent(http):
    return json.loads(http.calls[-1].request.body)


def test_it_knows_whom_its_credentials_stand_for(http, transport, step):
    http.get(f"{BASE}/api/users/self", json=step("users self"))
    me = provisioning.who_am_i(transport)
    assert (me.username, me.name, me.role, me.is_admin) == ("sync [1]", "sync [1]", "Administrator", True)


def test_something_that_is_no_user_is_no_mautic(http, transport):
    http.get(f"{BASE}/api/users/self", json={})
    with pytest.raises(StopError, match=r"mautic\.base_url"):
        provisioning.who_am_i(transport)


def test_it_lists_stages_in_order(http, transport, step):
    http.get(f"{BASE}/api/stages", json=step("stages"))
    stages = provisioning.list_stages(transport)
    assert [(stage.id, stage.name, stage.weight) for stage in stages] == [
        (1, "Ghost", 10),
        (2, "Lead", 20),
        (3, "Customer", 30),
    ]


def test_it_creates_a_stage(http, transport, step):
    http.post(f"{BASE}/api/stages/new", json=step("new stage Ghost"), status=201)
    assert provisioning.create_stage(transport, "Ghost", 10, "Ghosts").id == 1
    assert sent(http) == {"name": "Ghost", "weight": 10, "description": "Ghosts", "isPublished": True}


def test_it_lists_and_creates_fields(http, transport, step):
    http.get(f"{BASE}/api/fields/contact", json=step("contact fields"))
    fields = {entry.alias: entry for entry in provisioning.list_fields(transport)}
    assert (fields["points"].type, fields["email"].unique, fields["email"].object) == ("number", True, "lead")
    http.post(f"{BASE}/api/fields/contact/new", json=step("new boolean field"), status=201)
    assert provisioning.create_field(transport, "is_hot", "Is hot", "boolean").type == "boolean"
    assert sent(http)["properties"] == {"no": "No", "yes": "Yes"}


def test_it_lists_segments_with_their_filters(http, transport, step):
    http.get(f"{BASE}/api/segments", json=step("segments"))
    (segment,) = provisioning.list_segments(transport)
    assert (segment.id, segment.alias) == (1, "hot-leads")
    assert segment.filters[0]["field"] == "points"


def test_it_creates_segments_on_stages_and_tags(http, transport, step):
    http.post(f"{BASE}/api/segments/new", json=step("segments by stage"), status=201)
    assert provisioning.create_segment_on_stage(transport, "Leads", "leads", 2).alias == "leads"
    assert sent(http)["filters"][0] == {
        "glue": "and",
        "field": "stage",
        "object": "lead",
        "type": "stage",
        "operator": "=",
        "properties": {"filter": "2"},
    }
    provisioning.create_segment_on_tag(transport, "VIPs", "vips", 4)
    assert sent(http)["filters"][0]["properties"] == {"filter": [4]}


def test_a_creation_that_shows_nothing_stops(http, transport):
    http.post(f"{BASE}/api/stages/new", json={"success": 1})
    with pytest.raises(StopError, match="look whether it exists"):
        provisioning.create_stage(transport, "Ghost", 10)


def test_a_long_list_is_read_in_pages(http, transport):
    rows = [{"id": number, "name": f"Form {number}"} for number in range(1, 251)]

    def answer(request):
        given = dict(parse_qsl(urlsplit(request.url).query))
        start, limit = int(given["start"]), int(given["limit"])
        return 200, {}, json.dumps({"total": 250, "forms": rows[start : start + limit]})

    http.add_callback("GET", f"{BASE}/api/forms", callback=answer)
    assert [form.id for form in provisioning.list_forms(transport)] == list(range(1, 251))
    assert transport.calls == 3


def test_a_server_that_ignores_the_page_does_not_loop(http, transport):
    rows = [{"id": number, "name": "x"} for number in range(1, 201)]
    http.get(f"{BASE}/api/forms", json={"forms": rows})
    assert len(provisioning.list_forms(transport)) == 200


def test_an_asset_is_known_by_its_title(http, transport, step):
    http.get(f"{BASE}/api/assets", json={"total": 1, "assets": {"1": step("new asset")["asset"]}})
    assert provisioning.list_assets(transport) == [provisioning.Named(1, "Whitepaper", published=True)]


@pytest.fixture
def instance(http, step):
    http.get(f"{BASE}/api/fields/contact", json=step("contact fields"))
    http.get(f"{BASE}/api/segments", json=step("segments"))
    http.get(f"{BASE}/api/tags", json=step("tags"))
    http.get(f"{BASE}/api/campaigns", json=step("campaigns"))
    return http


def test_the_catalogue_reads_only_what_is_needed(instance, transport):
    catalogue = provisioning.read_catalogue(transport, [])
    assert catalogue.fields["email"] == "email"
    assert transport.calls == 1
    catalogue = provisioning.read_catalogue(transport, ["segments", "campaigns", "tags"])
    assert catalogue.segments == {1: "hot-leads"}
    assert catalogue.campaigns == {}
    assert "vip" in catalogue.tags
    assert transport.calls == 5


def test_a_part_that_this_mautic_does_not_have_is_empty(instance, transport, step):
    instance.get(f"{BASE}/api/pages", json=step("unknown api path"), status=404)
    assert provisioning.read_catalogue(transport, ["pages"]).pages == {}


def test_a_part_that_is_refused_is_an_error(instance, transport):
    instance.get(f"{BASE}/api/pages", json={"errors": [{"message": "no", "code": 500}]}, status=500)
    with pytest.raises(RefusedError):
        provisioning.read_catalogue(transport, ["pages"])


@pytest.mark.parametrize(
    ("version", "stored", "written"), [("5.1.0", "R&#38;D", "R&amp;#38;D"), ("7.0.0", "R&D", "R&D")]
)
def test_a_tag_is_created_as_edits_will_name_it(http, transport, version, stored, written):
    transport.version = version
    http.post(
        f"{BASE}/api/tags/new",
        json={"tag": {"id": 4, "tag": stored}},
        status=201,
    )
    assert provisioning.stored_tag(transport, "R&D") == stored
    assert provisioning.create_tag(transport, stored) == 4
    assert sent(http) == {"tag": written}


def test_it_creates_a_tag(http, transport):
    http.post(f"{BASE}/api/tags/new", json={"tag": {"id": 4, "tag": "hot"}}, status=201)
    assert provisioning.create_tag(transport, "hot") == 4


def test_a_part_that_no_catalogue_has_is_a_mistake_of_ours(transport):
    with pytest.raises(ValueError, match="socks"):
        provisioning.read_catalogue(transport, ["socks"])


def test_segments_that_read_what_we_write_are_named(instance, transport):
    """A filter on points, on the stage, or on a tag of ours."""
    assert provisioning.read_catalogue(transport, ["segments"]).stage_segments == {"hot-leads"}
    instance.replace(
        "GET",
        f"{BASE}/api/segments",
        json={
            "lists": {
                "1": {"id": 1, "alias": "by-stage", "filters": [{"field": "stage"}]},
                "2": {
                    "id": 2,
                    "alias": "by-our-tag",
                    "filters": {"0": {"field": "tags", "properties": {"filter": ["2"]}}},
                },
                "3": {"id": 3, "alias": "by-other-tag", "filters": [{"field": "tags", "filter": 1}]},
                "4": {"id": 4, "alias": "by-our-field", "filters": [{"field": "zb_status"}]},
                "5": {"id": 5, "alias": "by-city", "filters": [{"field": "city"}]},
            }
        },
    )
    catalogue = provisioning.read_catalogue(transport, ["segments"], written_fields=["zb_status"], written_tags=["vip"])
    assert catalogue.stage_segments == {"by-stage", "by-our-tag", "by-our-field"}
