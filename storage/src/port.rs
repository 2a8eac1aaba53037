//! What both ports share: the one question asked of a failed call.

#[cfg(any(test, feature = "test-util"))]
pub mod fate;

/// A failed call to a port, sorted by the only question that matters: did it happen?
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The call had no effect and never will.
    #[error("rejected by the backend: {0}")]
    Determinate(#[source] Cause),
    /// The call may have taken effect, or may yet. Whatever cannot be classified lands here.
    #[error("outcome unknown: {0}")]
    Indeterminate(#[source] Cause),
    /// The backend can't go on in this process, and what it says can't be believed any more. The
    /// call may have taken effect. Only a restart finds out.
    #[error("broken until restarted: {0}")]
    Broken(#[source] Cause),
}

/// Why a call failed, in the backend's own words.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

impl PortError {
    /// A call that certainly had no effect.
    pub fn determinate(cause: impl Into<Cause>) -> Self {
        Self::Determinate(cause.into())
    }

    /// A call that may have taken effect.
    pub fn indeterminate(cause: impl Into<Cause>) -> Self {
        Self::Indeterminate(cause.into())
    }

    /// A backend that can't go on.
    pub fn broken(cause: impl Into<Cause>) -> Self {
        Self::Broken(cause.into())
    }
}
