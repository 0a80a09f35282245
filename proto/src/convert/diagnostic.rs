//! Diagnostics of a spec, and the refusal of a submission, which travels as the details of a gRPC status.

use crate::fitting::cut;
use crate::limit::STATUS_DETAILS_BYTES;
use crate::v1;
use phalanx_shared::diagnostic::{Diagnostic, Severity, Source, Sources, Span};
use phalanx_shared::error_code::ErrorCode;
use prost::Message;
use tonic::{Code, Status};

/// Why a wire diagnostic is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDiagnostic {
    /// The severity's number is unknown to this version.
    #[error("severity {0} is not known to this version")]
    Severity(i32),
    /// The related place has no position.
    #[error("a related place has no span")]
    RelatedSpan,
}

impl From<v1::Span> for Span {
    fn from(wire: v1::Span) -> Self {
        let v1::Span {
            file,
            line,
            column,
            offset,
            len,
        } = wire;
        Span {
            file,
            line,
            column,
            offset,
            len,
        }
    }
}

impl From<Span> for v1::Span {
    fn from(span: Span) -> Self {
        let Span {
            file,
            line,
            column,
            offset,
            len,
        } = span;
        v1::Span {
            file,
            line,
            column,
            offset,
            len,
        }
    }
}

impl From<v1::SourceFile> for Source {
    fn from(wire: v1::SourceFile) -> Self {
        let v1::SourceFile { name, text } = wire;
        Source { name, text }
    }
}

impl From<Source> for v1::SourceFile {
    fn from(source: Source) -> Self {
        let Source { name, text } = source;
        v1::SourceFile { name, text }
    }
}

impl TryFrom<v1::Diagnostic> for Diagnostic {
    type Error = InvalidDiagnostic;

    fn try_from(wire: v1::Diagnostic) -> Result<Self, InvalidDiagnostic> {
        let v1::Diagnostic {
            severity,
            message,
            span,
            help,
            related,
            code,
        } = wire;
        let severity = match v1::Severity::try_from(severity) {
            Ok(v1::Severity::Warning) => Severity::Warning,
            Ok(v1::Severity::Error) => Severity::Error,
            Ok(v1::Severity::Unspecified) | Err(_) => {
                return Err(InvalidDiagnostic::Severity(severity));
            }
        };
        let related = related
            .map(|v1::Related { span, label }| {
                span.map(|span| (span.into(), label))
                    .ok_or(InvalidDiagnostic::RelatedSpan)
            })
            .transpose()?;
        Ok(Diagnostic {
            severity,
            message,
            span: span.map(Into::into),
            help,
            related,
            // A later version may know further codes.
            code: ErrorCode::parse(&code),
        })
    }
}

impl From<Diagnostic> for v1::Diagnostic {
    fn from(diagnostic: Diagnostic) -> Self {
        let Diagnostic {
            severity,
            message,
            span,
            help,
            related,
            code,
        } = diagnostic;
        let severity = match severity {
            Severity::Warning => v1::Severity::Warning,
            Severity::Error => v1::Severity::Error,
        };
        v1::Diagnostic {
            severity: severity.into(),
            message,
            span: span.map(Into::into),
            help,
            related: related.map(|(span, label)| v1::Related {
                span: Some(span.into()),
                label,
            }),
            code: code.map(|code| code.to_string()).unwrap_or_default(),
        }
    }
}

/// Why a submission was refused: every diagnostic, and the files to which they refer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// Diagnostics of the spec.
    pub diagnostics: Vec<Diagnostic>,
    /// Files to which the diagnostics refer.
    pub sources: Sources,
}

impl Refusal {
    /// Converts the refusal to a status that carries it as details, for clients that don't want it in the response.
    /// Parts that don't fit into trailers are dropped: the sources first, then the last diagnostics.
    pub fn into_status(mut self) -> Status {
        let errors = self
            .diagnostics
            .iter()
            .filter(|finding| finding.severity == Severity::Error)
            .count();
        let message = match self.diagnostics.as_slice() {
            [only] => only.message.clone(),
            _ => format!("the spec has {errors} errors"),
        };
        let mut details = v1::Refusal::from(self.clone()).encode_to_vec();
        if details.len() > STATUS_DETAILS_BYTES {
            self.sources = Sources::default();
            details = v1::Refusal::from(self.clone()).encode_to_vec();
        }
        while details.len() > STATUS_DETAILS_BYTES {
            let half = self.diagnostics.len() / 2;
            self.diagnostics.truncate(half);
            details = v1::Refusal::from(self.clone()).encode_to_vec();
        }
        Status::with_details(Code::InvalidArgument, cut(&message), details.into())
    }

    /// Returns the refusal that a status carries, if any.
    pub fn from_status(status: &Status) -> Option<Refusal> {
        if status.code() != Code::InvalidArgument || status.details().is_empty() {
            return None;
        }
        let wire = v1::Refusal::decode(status.details()).ok()?;
        Refusal::try_from(wire).ok()
    }
}

impl TryFrom<v1::Refusal> for Refusal {
    type Error = InvalidDiagnostic;

    fn try_from(wire: v1::Refusal) -> Result<Self, InvalidDiagnostic> {
        let v1::Refusal {
            diagnostics,
            sources,
        } = wire;
        Ok(Refusal {
            diagnostics: diagnostics
                .into_iter()
                .map(Diagnostic::try_from)
                .collect::<Result<_, _>>()?,
            sources: Sources {
                files: sources.into_iter().map(Into::into).collect(),
            },
        })
    }
}

impl From<Refusal> for v1::Refusal {
    fn from(refusal: Refusal) -> Self {
        let Refusal {
            diagnostics,
            sources: Sources { files },
        } = refusal;
        v1::Refusal {
            diagnostics: diagnostics.into_iter().map(Into::into).collect(),
            sources: files.into_iter().map(Into::into).collect(),
        }
    }
}
