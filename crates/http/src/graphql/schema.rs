//! What can be asked for. The reference's schema, with the types that every schema has.

/// How a type is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Scalar,
    Object,
    Enum,
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Kind::Scalar => "SCALAR",
            Kind::Object => "OBJECT",
            Kind::Enum => "ENUM",
        }
    }
}

/// A type that has a name.
#[derive(Debug)]
pub(super) struct Type {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// Empty where there is none, here and below.
    pub(super) description: &'static str,
    pub(super) fields: &'static [Field],
    /// The values of an enumeration.
    pub(super) values: &'static [&'static str],
}

/// A field of an object.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) description: &'static str,
    pub(super) arguments: &'static [Input],
    /// As the language writes it: `[Component!]!`.
    pub(super) ty: &'static str,
}

/// An argument of a field or directive.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) name: &'static str,
    pub(super) description: &'static str,
    pub(super) ty: &'static str,
    /// As the language writes it.
    pub(super) default: Option<&'static str>,
}

/// A directive.
#[derive(Debug)]
pub(super) struct Directive {
    pub(super) name: &'static str,
    pub(super) description: &'static str,
    pub(super) arguments: &'static [Input],
    pub(super) places: &'static [&'static str],
}

impl Type {
    pub(super) fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// Whether it has no fields to choose from.
    pub(super) fn is_leaf(&self) -> bool {
        self.kind != Kind::Object
    }
}

/// The type of that name.
pub(super) fn ty(name: &str) -> Option<&'static Type> {
    TYPES.iter().find(|ty| ty.name == name)
}

/// The directive of that name.
pub(super) fn directive(name: &str) -> Option<&'static Directive> {
    DIRECTIVES.iter().find(|directive| directive.name == name)
}

/// The name in a type as it is written.
pub(super) fn name_in(ty: &str) -> &str {
    ty.trim_matches(['[', ']', '!'])
}

/// What queries begin with.
pub(super) const QUERY: Type = object(
    "Query",
    "",
    &[
        field("alloy", "Alloy!", "Information about the running Alloy instance."),
        field("components", "[Component!]!", "All components running in Alloy."),
        with("component", "Component", "Component by ID.", &[input("id", "ID!", None)]),
        field("__schema", "__Schema!", ""),
        with("__type", "__Type", "", &[input("name", "String!", None)]),
    ],
);

const DEPRECATED_TOO: &[Input] = &[input("includeDeprecated", "Boolean", Some("false"))];
const IF: &[Input] = &[input("if", "Boolean!", None)];

/// All types, by their names.
pub(super) const TYPES: &[Type] = &[
    object(
        "Alloy",
        "Represents build and runtime information for an Alloy instance.\nContains version control and build environment \
         details.",
        &[
            field("branch", "String!", "The Git branch from which this build was created"),
            field("buildDate", "String!", "The timestamp of when this build was created"),
            field("buildUser", "String!", "The user account that initiated this build"),
            field("isReady", "Boolean!", "Whether the Alloy instance is up and running"),
            field("revision", "String!", "The Git commit hash from which this build was created"),
            field("version", "String!", "The semantic version of this Alloy build"),
        ],
    ),
    scalar("Boolean"),
    object(
        "Component",
        "",
        &[
            field("health", "Health!", "Health status of the component."),
            field("id", "ID!", "Fully qualified ID of the component."),
            field("name", "String!", "Name of the component."),
            field("arguments", "String!", "Arguments of the component."),
            field("exports", "String", "Exports of the component."),
            field("debugInfo", "String", "Debug info of the component."),
        ],
    ),
    scalar("Float"),
    object(
        "Health",
        "Health status of the component.",
        &[
            field("message", "String!", "Message of the health status."),
            field("lastUpdated", "Time!", "Last updated time of the health status."),
        ],
    ),
    scalar("ID"),
    scalar("Int"),
    QUERY,
    scalar("String"),
    scalar("Time"),
    object(
        "__Directive",
        "",
        &[
            field("name", "String!", ""),
            field("description", "String", ""),
            field("isRepeatable", "Boolean!", ""),
            field("locations", "[__DirectiveLocation!]!", ""),
            with("args", "[__InputValue!]!", "", DEPRECATED_TOO),
        ],
    ),
    enumeration(
        "__DirectiveLocation",
        &[
            "QUERY",
            "MUTATION",
            "SUBSCRIPTION",
            "FIELD",
            "FRAGMENT_DEFINITION",
            "FRAGMENT_SPREAD",
            "INLINE_FRAGMENT",
            "VARIABLE_DEFINITION",
            "SCHEMA",
            "SCALAR",
            "OBJECT",
            "FIELD_DEFINITION",
            "ARGUMENT_DEFINITION",
            "INTERFACE",
            "UNION",
            "ENUM",
            "ENUM_VALUE",
            "INPUT_OBJECT",
            "INPUT_FIELD_DEFINITION",
        ],
    ),
    object(
        "__EnumValue",
        "",
        &[
            field("name", "String!", ""),
            field("description", "String", ""),
            field("isDeprecated", "Boolean!", ""),
            field("deprecationReason", "String", ""),
        ],
    ),
    object(
        "__Field",
        "",
        &[
            field("name", "String!", ""),
            field("description", "String", ""),
            with("args", "[__InputValue!]!", "", DEPRECATED_TOO),
            field("type", "__Type!", ""),
            field("isDeprecated", "Boolean!", ""),
            field("deprecationReason", "String", ""),
        ],
    ),
    object(
        "__InputValue",
        "",
        &[
            field("name", "String!", ""),
            field("description", "String", ""),
            field("type", "__Type!", ""),
            field("defaultValue", "String", ""),
            field("isDeprecated", "Boolean!", ""),
            field("deprecationReason", "String", ""),
        ],
    ),
    object(
        "__Schema",
        "",
        &[
            field("description", "String", ""),
            field("types", "[__Type!]!", ""),
            field("queryType", "__Type!", ""),
            field("mutationType", "__Type", ""),
            field("subscriptionType", "__Type", ""),
            field("directives", "[__Directive!]!", ""),
        ],
    ),
    object(
        "__Type",
        "",
        &[
            field("kind", "__TypeKind!", ""),
            field("name", "String", ""),
            field("description", "String", ""),
            field("specifiedByURL", "String", ""),
            with("fields", "[__Field!]", "", DEPRECATED_TOO),
            field("interfaces", "[__Type!]", ""),
            field("possibleTypes", "[__Type!]", ""),
            with("enumValues", "[__EnumValue!]", "", DEPRECATED_TOO),
            with("inputFields", "[__InputValue!]", "", DEPRECATED_TOO),
            field("ofType", "__Type", ""),
            field("isOneOf", "Boolean", ""),
        ],
    ),
    enumeration("__TypeKind", &["SCALAR", "OBJECT", "INTERFACE", "UNION", "ENUM", "INPUT_OBJECT", "LIST", "NON_NULL"]),
];

/// All directives, by their names. What is to be deferred is delivered with the rest.
pub(super) const DIRECTIVES: &[Directive] = &[
    Directive {
        name: "defer",
        description: "Directs the executor to defer this fragment when the `if` argument is true or undefined.",
        arguments: &[input("if", "Boolean", Some("true")), input("label", "String", None)],
        places: &["FRAGMENT_SPREAD", "INLINE_FRAGMENT"],
    },
    Directive {
        name: "deprecated",
        description: "Marks an element of a GraphQL schema as no longer supported.",
        arguments: &[input("reason", "String", Some("\"No longer supported\""))],
        places: &["FIELD_DEFINITION", "ARGUMENT_DEFINITION", "INPUT_FIELD_DEFINITION", "ENUM_VALUE"],
    },
    Directive {
        name: "include",
        description: "Directs the executor to include this field or fragment only when the `if` argument is true.",
        arguments: IF,
        places: &["FIELD", "FRAGMENT_SPREAD", "INLINE_FRAGMENT"],
    },
    Directive {
        name: "oneOf",
        description: "Indicates exactly one field must be supplied and this field must not be `null`.",
        arguments: &[],
        places: &["INPUT_OBJECT"],
    },
    Directive {
        name: "skip",
        description: "Directs the executor to skip this field or fragment when the `if` argument is true.",
        arguments: IF,
        places: &["FIELD", "FRAGMENT_SPREAD", "INLINE_FRAGMENT"],
    },
    Directive {
        name: "specifiedBy",
        description: "Exposes a URL that specifies the behavior of this scalar.",
        arguments: &[input("url", "String!", None)],
        places: &["SCALAR"],
    },
];

const fn scalar(name: &'static str) -> Type {
    Type { name, kind: Kind::Scalar, description: "", fields: &[], values: &[] }
}

const fn object(name: &'static str, description: &'static str, fields: &'static [Field]) -> Type {
    Type { name, kind: Kind::Object, description, fields, values: &[] }
}

const fn enumeration(name: &'static str, values: &'static [&'static str]) -> Type {
    Type { name, kind: Kind::Enum, description: "", fields: &[], values }
}

const fn field(name: &'static str, ty: &'static str, description: &'static str) -> Field {
    with(name, ty, description, &[])
}

const fn with(name: &'static str, ty: &'static str, description: &'static str, arguments: &'static [Input]) -> Field {
    Field { name, description, arguments, ty }
}

const fn input(name: &'static str, ty: &'static str, default: Option<&'static str>) -> Input {
    Input { name, description: "", ty, default }
}
