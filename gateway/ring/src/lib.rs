//! A safe wrapper over io_uring. The only unsafe code of the gateway.
