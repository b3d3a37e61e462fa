"""Contact fields: the 28 that a fresh Mautic has, and the metadata that every contact carries along."""

from dataclasses import dataclass, field, replace
from typing import Any

from .php import serialize

#: The order of the columns in `leads`, which is the order of fields in lists and batches.
COLUMN_ORDER = [
    "points",
    "last_active",
    "title",
    "firstname",
    "lastname",
    "company",
    "position",
    "email",
    "phone",
    "mobile",
    "address1",
    "address2",
    "city",
    "state",
    "zipcode",
    "timezone",
    "country",
    "fax",
    "preferred_locale",
    "attribution_date",
    "attribution",
    "website",
    "facebook",
    "foursquare",
    "instagram",
    "linkedin",
    "skype",
    "twitter",
]
#: Fields that are properties of Mautic's contact object: audit rows name them twice, `select[]` knows only them.
BUILT_IN = frozenset(
    [
        "title",
        "firstname",
        "lastname",
        "company",
        "position",
        "email",
        "phone",
        "mobile",
        "address1",
        "address2",
        "city",
        "state",
        "zipcode",
        "timezone",
        "country",
        "points",
    ]
)
GROUPS = ("core", "social", "personal", "professional")
SOCIAL = ("facebook", "foursquare", "instagram", "linkedin", "skype", "twitter")
FIRST_CUSTOM_ID = 44  # 29 to 43 are the company fields


@dataclass
class Field:
    """One contact field."""

    id: int
    label: str
    alias: str
    type: str
    group: str = "core"
    order: int = 0
    fixed: bool = False
    short_visible: bool = False
    unique: bool = False
    default: str | None = None
    properties: dict[str, Any] = field(default_factory=dict)
    published: bool = True
    required: bool = False
    date_added: str | None = None
    date_modified: str | None = None
    created_by_user: str | None = None
    modified_by_user: str | None = None

    @property
    def is_number(self) -> bool:
        return self.type == "number"

    @property
    def scale(self) -> int:
        return int(self.properties.get("scale") or 0)

    @property
    def sql_type(self) -> str:
        if self.alias == "points" or self.type == "boolean":
            return "INTEGER"
        return "REAL" if self.is_number else "TEXT COLLATE NOCASE"

    @property
    def new_metadata(self) -> dict[str, Any]:
        """As the echo of a contact just made shows it."""
        return {
            "id": self.id, "group": self.group, "label": self.label, "alias": self.alias, "type": self.type,
            "properties": self.properties or [],
        }  # fmt: skip

    @property
    def metadata(self) -> dict[str, Any]:
        """As every other answer shows it: straight from the table, texts throughout."""
        return {
            "id": str(self.id), "label": self.label, "alias": self.alias, "type": self.type, "group": self.group,
            "object": "lead", "is_fixed": str(int(self.fixed)), "properties": serialize(self.properties),
            "default_value": self.default,
        }  # fmt: skip


_FIRST = (
    "Title:title:lookup First_Name:firstname:text Last_Name:lastname:text Primary_company:company:text "
    "Position:position:text Email:email:email Mobile:mobile:tel Phone:phone:tel Points:points:number Fax:fax:tel "
    "Address_Line_1:address1:text Address_Line_2:address2:text City:city:text State:state:region Zip_Code:zipcode:text "
    "Country:country:country Preferred_Locale:preferred_locale:locale Preferred_Timezone:timezone:timezone "
    "Date_Last_Active:last_active:datetime Attribution_Date:attribution_date:datetime Attribution:attribution:number "
    "Website:website:url Facebook:facebook:text Foursquare:foursquare:text Instagram:instagram:text "
    "mautic.lead.field.linkedin:linkedin:text Skype:skype:text Twitter:twitter:text"
)


def default_fields() -> list[Field]:
    """The contact fields of a fresh installation, by id."""
    made = []
    for number, text in enumerate(_FIRST.split(), start=1):
        label, alias, kind = text.split(":")
        made.append(
            Field(
                id=number,
                label=label.replace("_", " "),
                alias=alias,
                type=kind,
                group="social" if alias in SOCIAL else "core",
                order=number,
                fixed=alias not in {"fax", "website", *SOCIAL},
                short_visible=alias in {"firstname", "lastname", "email"},
                unique=alias == "email",
            )
        )
    made[0] = replace(made[0], properties={"list": ["Mr", "Mrs", "Miss"]})
    made[8] = replace(made[8], default="0")
    made[20] = replace(made[20], properties={"roundmode": 4, "scale": 2})
    return made
