//! `#[derive(Arguments)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt;
use syn::{Data, DeriveInput, Error, Field, Fields, FieldsNamed, Ident};

use crate::attributes::{Options, doc, exclusive, option, required_doc};
use crate::one_of;

/// The expansion for a struct or an enum.
pub(crate) fn arguments(input: &DeriveInput) -> syn::Result<TokenStream> {
    if let Some(parameter) = input.generics.params.first() {
        return Err(Error::new_spanned(
            parameter,
            "arguments have no type parameters: their schema is one static table",
        ));
    }
    match &input.data {
        Data::Struct(data) => {
            let fields = named(&data.fields, &input.ident)?;
            let rows = fields.named.iter().map(row).collect::<Vec<_>>();
            let rows = all(rows)?;
            check_names(&rows)?;
            let record = record(input, &rows);
            let ident = &input.ident;
            Ok(quote! {
                #record
                #[automatically_derived]
                impl ::corten_config::arguments::Arguments for #ident {}
                #[automatically_derived]
                impl ::corten_config::decode::Decode for #ident {
                    const SHAPE: ::corten_config::schema::Shape = ::corten_config::arguments::object_shape::<Self>();
                    fn decode(
                        value: &::corten_config::Value,
                        cx: &::corten_config::decode::ValueContext,
                    ) -> ::core::result::Result<Self, ::corten_config::decode::Mismatches> {
                        ::corten_config::arguments::from_object(value, cx)
                    }
                    fn zero() -> ::core::option::Option<Self> {
                        ::corten_config::arguments::zero()
                    }
                    fn to_value(&self) -> ::corten_config::Value {
                        ::corten_config::arguments::to_object(self)
                    }
                }
            })
        }
        Data::Enum(data) => one_of::expand(input, data),
        Data::Union(data) => Err(Error::new_spanned(data.union_token, "arguments are a struct or an enum")),
    }
}

/// The implementation that arguments and exports share: the table, and how values of the fields get in and out.
pub(crate) fn record(input: &DeriveInput, rows: &[Row]) -> TokenStream {
    let ident = &input.ident;
    let name = ident.to_string();
    let doc = doc(&input.attrs).unwrap_or_default();
    let entries = rows.iter().map(|row| &row.tokens);
    let members = rows.iter().enumerate().map(|(index, Row { ident, kind, .. })| match kind {
        // The walk puts the label in as a `String`: any other type is refused by the compiler here.
        Kind::Label => quote!(#ident: slots.take::<::std::string::String>(#index)?),
        _ => quote!(#ident: slots.take(#index)?),
    });
    let arms = rows.iter().enumerate().map(|(index, Row { ident, .. })| {
        quote!(#index => ::core::option::Option::Some(&self.#ident as &dyn ::core::any::Any),)
    });
    quote! {
        #[automatically_derived]
        impl ::corten_config::arguments::Record for #ident {
            const SCHEMA: &'static ::corten_config::schema::Schema = &::corten_config::schema::Schema {
                name: ::core::concat!(::core::module_path!(), "::", #name),
                doc: #doc,
                fields: &[#(#entries),*],
                ops: ::corten_config::arguments::RecordOps::of::<Self>(),
            };
            fn assemble(slots: &mut ::corten_config::arguments::Slots) -> ::core::option::Option<Self> {
                ::core::option::Option::Some(Self { #(#members,)* })
            }
            fn field(&self, index: usize) -> ::core::option::Option<&dyn ::core::any::Any> {
                match index {
                    #(#arms)*
                    _ => ::core::option::Option::None,
                }
            }
            fn check_rules(&self) -> ::core::result::Result<(), ::corten_config::arguments::CheckErrors> {
                #[allow(unused_imports)]
                use ::corten_config::arguments::NoCheck as _;
                Self::check(self)
            }
            fn check_build_rules(
                &self,
                minimum: ::corten_config::schema::Stability,
            ) -> ::core::result::Result<(), ::corten_config::arguments::CheckErrors> {
                #[allow(unused_imports)]
                use ::corten_config::arguments::NoCheck as _;
                Self::check_build(self, minimum)
            }
        }
    }
}

/// All of them, or all errors.
pub(crate) fn all<T>(results: Vec<syn::Result<T>>) -> syn::Result<Vec<T>> {
    let mut values = Vec::new();
    let mut errors: Option<Error> = None;
    for result in results {
        match (result, &mut errors) {
            (Ok(value), _) => values.push(value),
            (Err(error), Some(errors)) => errors.combine(error),
            (Err(error), None) => errors = Some(error),
        }
    }
    errors.map_or(Ok(values), Err)
}

/// The fields of a struct that has names for them.
pub(crate) fn named<'a>(fields: &'a Fields, ident: &Ident) -> syn::Result<&'a FieldsNamed> {
    match fields {
        Fields::Named(fields) => Ok(fields),
        _ => Err(Error::new(ident.span(), "the fields need names: write `struct Name {}` for none")),
    }
}

/// What a field is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Attr,
    Block,
    /// The name of a group is only the beginning of its blocks' names, so that it excludes nothing.
    Group,
    Flatten,
    Label,
}

/// The row of the table for one field.
pub(crate) struct Row {
    pub(crate) ident: Ident,
    pub(crate) kind: Kind,
    /// The name that the user writes, if it is one of its own.
    pub(crate) name: Option<String>,
    pub(crate) tokens: TokenStream,
}

fn row(field: &Field) -> syn::Result<Row> {
    let Some(ident) = &field.ident else { return Err(Error::new_spanned(field, "the fields need names")) };
    let kind = exclusive(&field.attrs, &["arg", "block", "flatten", "label"])?;
    match kind.as_deref() {
        Some("block") => block(field, ident),
        Some("flatten") => flatten(field, ident),
        Some("label") => label(field, ident),
        _ => attribute(field, ident),
    }
}

fn attribute(field: &Field, ident: &Ident) -> syn::Result<Row> {
    let doc = required_doc(&field.attrs, ident, "field")?;
    let allowed = ["name", "default", "default_with", "default_text", "optional", "stability", "deprecated"];
    let options = Options::read(&field.attrs, "arg", &allowed)?;
    options.at_most_one(&["default", "default_with", "optional"])?;
    options.needs("default_text", "default_with")?;
    options.needs("default_with", "default_text")?;
    if let Some(name) = &options.name
        && name.contains('.')
    {
        return Err(Error::new_spanned(field, "the name of an attribute has no dots"));
    }
    let ty = &field.ty;
    let absent = match (&options.default, &options.default_with, options.optional) {
        (Some(text), _, _) => quote!(::corten_config::schema::Absent::Literal(#text)),
        (_, Some(path), _) => {
            let text = options.default_text.clone().unwrap_or_default();
            quote!(::corten_config::schema::Absent::Computed {
                text: #text,
                make: || ::corten_config::arguments::boxed::<#ty>(#path()),
            })
        }
        (_, _, true) => quote!(::corten_config::schema::Absent::Zero),
        _ => quote!(::corten_config::schema::Absent::of(<#ty as ::corten_config::decode::Decode>::OPTIONAL)),
    };
    let kind = quote!(::corten_config::schema::FieldKind::Attr {
        ty: <#ty as ::corten_config::decode::Typed>::TYPE,
        absent: #absent,
    });
    Ok(Row::new(Kind::Attr, &options, ident, &doc, &kind))
}

fn block(field: &Field, ident: &Ident) -> syn::Result<Row> {
    let doc = required_doc(&field.attrs, ident, "field")?;
    let allowed = [
        "name",
        "group",
        "default",
        "default_with",
        "default_text",
        "optional",
        "required",
        "defaults",
        "stability",
        "deprecated",
    ];
    let options = Options::read(&field.attrs, "block", &allowed)?;
    options.at_most_one(&["default", "default_with", "optional", "required"])?;
    options.at_most_one(&["group", "name"])?;
    options.at_most_one(&["group", "required"])?;
    options.at_most_one(&["group", "default"])?;
    options.at_most_one(&["group", "default_with"])?;
    options.at_most_one(&["group", "defaults"])?;
    options.needs("default_text", "default_with")?;
    let ty = &field.ty;
    if let Some(group) = &options.group {
        let kind = quote!(::corten_config::schema::FieldKind::Group {
            prefix: #group,
            group: <#ty as ::corten_config::arguments::GroupField>::GROUP,
        });
        return Ok(Row::new(Kind::Group, &options, ident, &doc, &kind));
    }
    let block = quote!(<#ty as ::corten_config::arguments::BlockField>::BLOCK);
    let absent = if options.default_flag {
        quote!(::corten_config::schema::BlockAbsent::Defaults)
    } else if let Some(path) = &options.default_with {
        let text = option(options.default_text.as_ref());
        quote!(::corten_config::schema::BlockAbsent::Computed {
            text: #text,
            make: || ::corten_config::arguments::boxed::<#ty>(#path()),
        })
    } else if options.optional {
        quote!(::corten_config::schema::BlockAbsent::Zero)
    } else if options.required {
        quote!(::corten_config::schema::BlockAbsent::Refused)
    } else {
        quote!(::corten_config::schema::BlockAbsent::of(#block.arity))
    };
    let defaults = options.defaults_tokens();
    let kind = quote!(::corten_config::schema::FieldKind::Block {
        block: #block,
        absent: #absent,
        defaults: #defaults,
    });
    Ok(Row::new(Kind::Block, &options, ident, &doc, &kind))
}

fn flatten(field: &Field, ident: &Ident) -> syn::Result<Row> {
    let options = Options::read(&field.attrs, "flatten", &["defaults"])?;
    let ty = &field.ty;
    let defaults = options.defaults_tokens();
    let kind = quote!(::corten_config::schema::FieldKind::Flatten {
        schema: ::corten_config::arguments::schema_of::<#ty>,
        defaults: #defaults,
    });
    Ok(Row::new(Kind::Flatten, &options, ident, "", &kind))
}

fn label(field: &Field, ident: &Ident) -> syn::Result<Row> {
    let doc = required_doc(&field.attrs, ident, "field")?;
    let options = Options::read(&field.attrs, "label", &[])?;
    let kind = quote!(::corten_config::schema::FieldKind::Label);
    Ok(Row::new(Kind::Label, &options, ident, &doc, &kind))
}

impl Row {
    pub(crate) fn new(kind: Kind, options: &Options, ident: &Ident, doc: &str, tokens: &TokenStream) -> Self {
        let name = options.name.clone().unwrap_or_else(|| ident.unraw().to_string());
        let stability = options.stability_tokens();
        let deprecated = options.deprecated_tokens();
        let secret_if = option(options.secret_if.as_ref());
        let tokens = quote!(::corten_config::schema::Field {
            name: #name,
            doc: #doc,
            stability: #stability,
            deprecated: #deprecated,
            secret_if: #secret_if,
            kind: #tokens,
        });
        let name = matches!(kind, Kind::Attr | Kind::Block).then_some(name);
        Row { ident: ident.clone(), kind, name, tokens }
    }
}

/// Refuses two fields of one name and two labels. What `#[flatten]` brings in is not known here: a test of the tables
/// finds that.
pub(crate) fn check_names(rows: &[Row]) -> syn::Result<()> {
    for (index, row) in rows.iter().enumerate() {
        let Some(name) = &row.name else { continue };
        if rows[..index].iter().any(|other| other.name.as_ref() == Some(name)) {
            return Err(Error::new(row.ident.span(), format!("two fields are called `{name}`")));
        }
    }
    match rows.iter().filter(|row| row.kind == Kind::Label).nth(1) {
        Some(second) => Err(Error::new(second.ident.span(), "a block has one label")),
        None => Ok(()),
    }
}
