"""The contract: events, topics, commands and program documents. Imports nothing else of ours.

Glossary
    partner      a platform customer who refers others; the partner id is that person's customer id
    customer     a referred person, owner of one or more accounts
    account      a workspace or company that a customer owns
    click        a top-level navigation through a partner's link
    code         what stands in a link, or a promo code; it stands for one partner under one program
    referral     the binding of a customer to one partner under one program, for ever
    paying client  a distinct customer bound to a partner, from the first payment that accrued
    accrual      the commission that one payment earned; reversed by refunds, adjusted by corrections
    standing     how a payment's commission stands now: its accrual, what was taken back, what is held
    hold         the time before an accrual can be withdrawn
    credits      whole units of a program, earned by purchases; they buy data in its reward store, and are no money
    wallet       what a partner holds that is no money: credits and bonuses
    claim        credits taken for data of a provider; given back when the platform fails it
    withdrawal   money that leaves; a top-up turns bonus money into balance of the partner's own account
    active referral  a referral whose trial is over, who has paid since and whose subscription is on
    verification the judgement of a month: a partner's active referrals become discounts of the own companies, once
    program      a document with versions: who earns, at what rate, for how long
    decision     why a signup or payment was answered as it was: program, rule, inputs, arithmetic, reason
    cell         one stage of a service and one partition: the unit that one worker owns and folds
    edge         the way from one cell to a partition of a topic; its records are numbered without holes
    outbox       what a cell has decided to say and has not yet been seen to send
"""
