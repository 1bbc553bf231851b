/** The inbox: open an email, get a draft, edit it, send it. This page reports to RLaaS what was done with the draft. */
import { Rlaas } from "@rlaas/sdk";
import { useRlaasDraft, type Draft } from "@rlaas/sdk/react";
import { useCallback, useEffect, useState } from "react";
import { createRoot } from "react-dom/client";

interface Email {
  id: string;
  name: string;
  address: string;
  received: string;
  subject: string;
  body: string;
  reply: string | null;
}
interface Inbox {
  apiUrl: string;
  apiKey: string;
  skill: string;
  emails: Email[];
}

async function ask<T>(path: string, body?: object): Promise<T> {
  const response = await fetch(path, body && { method: "POST", body: JSON.stringify(body) });
  const answer = (await response.json()) as T & { error?: string };
  if (!response.ok) throw new Error(answer.error ?? `HTTP ${response.status}`);
  return answer;
}

function App({ rlaas, emails: first }: { rlaas: Rlaas; emails: Email[] }) {
  const [emails, setEmails] = useState(first);
  const [openId, setOpenId] = useState<string>();
  const open = emails.find(({ id }) => id === openId);
  const replied = (id: string, reply: string) => {
    setEmails((now) => now.map((email) => (email.id === id ? { ...email, reply } : email)));
  };
  const waiting = emails.filter(({ reply }) => reply === null).length;
  return (
    <>
      <header>
        <h1>Inbox</h1>
        <span>{waiting ? `${waiting} to answer` : "All answered"}</span>
        <Telemetry rlaas={rlaas} />
      </header>
      <main>
        <nav aria-label="Emails">
          {emails.map((email) => (
            <button
              key={email.id}
              className={`row ${email.reply === null ? "" : "answered"}`}
              aria-current={email.id === openId}
              onClick={() => setOpenId(email.id)}
            >
              <span className="name">{email.name}</span>
              <span className="when">{email.reply === null ? email.received : "✓ Answered"}</span>
              <span className="subject">{email.subject}</span>
              <span className="snippet">{email.body.replace(/\s+/g, " ")}</span>
            </button>
          ))}
        </nav>
        {open ? (
          <Conversation key={open.id} email={open} rlaas={rlaas} onReplied={replied} />
        ) : (
          <section className="empty">
            <p>Choose an email to answer.</p>
          </section>
        )}
      </main>
    </>
  );
}

function Conversation({
  email,
  rlaas,
  onReplied,
}: {
  email: Email;
  rlaas: Rlaas;
  onReplied: (id: string, reply: string) => void;
}) {
  const [draft, setDraft] = useState<Draft | null>(null);
  const [drafting, setDrafting] = useState(false);
  const [problem, setProblem] = useState<string>();
  const deliver = useCallback((text: string) => ask("/api/replies", { email_id: email.id, text }), [email.id]);
  const reply = useRlaasDraft({ rlaas, draft, onSend: deliver });

  const getDraft = async () => {
    setDrafting(true);
    setProblem(undefined);
    try {
      setDraft(await ask<Draft>("/api/drafts", { email_id: email.id }));
    } catch (error) {
      setProblem(error instanceof Error ? error.message : String(error));
    }
    setDrafting(false);
  };
  const again = () => {
    reply.regenerate();
    void getDraft();
  };
  const discard = () => {
    reply.discard();
    setDraft(null);
  };
  const sent = reply.status === "sent";
  useEffect(() => {
    if (sent) onReplied(email.id, reply.text);
  }, [sent]);

  return (
    <section className="conversation">
      <article>
        <h2>{email.subject}</h2>
        <p className="from">
          <strong>{email.name}</strong> &lt;{email.address}&gt; <span className="when">{email.received}</span>
        </p>
        <p className="body">{email.body}</p>
      </article>
      {email.reply !== null ? (
        <article className="reply sent">
          <h3>Your reply</h3>
          <p className="body">{email.reply}</p>
          <p className="done" role="status">
            ✓ Sent
          </p>
        </article>
      ) : draft ? (
        <form
          className="reply"
          aria-label="Reply"
          onSubmit={(event) => {
            event.preventDefault();
            void reply.send();
          }}
        >
          <h3>
            <label htmlFor="text">Reply to {email.name}</label>
            <span className={`badge ${reply.edited ? "edited" : ""}`}>{reply.edited ? "Edited" : "Draft"}</span>
          </h3>
          <textarea
            id="text"
            rows={8}
            value={reply.text}
            disabled={drafting || reply.status !== "editing"}
            onChange={(event) => reply.setText(event.target.value)}
          />
          {(reply.error !== undefined || problem) && (
            <p className="problem" role="alert">
              {problem ?? "It could not be sent. Try again."}
            </p>
          )}
          <div className="actions">
            <button className="primary" disabled={drafting || reply.status !== "editing" || !reply.text.trim()}>
              {reply.status === "sending" ? "Sending…" : "Send"}
            </button>
            <button type="button" disabled={drafting || reply.status === "sending"} onClick={again}>
              {drafting ? "Drafting…" : "Draft again"}
            </button>
            <button type="button" className="quiet" disabled={drafting || reply.status === "sending"} onClick={discard}>
              Discard
            </button>
          </div>
        </form>
      ) : (
        <div className="reply start">
          <button className="primary" disabled={drafting} onClick={() => void getDraft()}>
            {drafting ? "Drafting…" : "Draft a reply"}
          </button>
          {problem && (
            <p className="problem" role="alert">
              {problem}
            </p>
          )}
        </div>
      )}
    </section>
  );
}

/** What the SDK has delivered so far. */
function Telemetry({ rlaas }: { rlaas: Rlaas }) {
  const [stats, setStats] = useState(() => rlaas.stats());
  useEffect(() => {
    const timer = setInterval(() => setStats(rlaas.stats()), 250);
    return () => clearInterval(timer);
  }, [rlaas]);
  const lost = Object.values(stats.dropped).reduce((sum, number) => sum + number, 0);
  return (
    <output
      className="telemetry"
      title="Events reported to RLaaS by this page"
      data-acknowledged={stats.acknowledged}
      data-waiting={stats.waiting}
      data-lost={lost}
    >
      <i className={stats.waiting ? "busy" : ""} aria-hidden="true" />
      {stats.acknowledged} {stats.acknowledged === 1 ? "event" : "events"} reported
      {stats.waiting > 0 && `, ${stats.waiting} waiting`}
      {lost > 0 && `, ${lost} lost`}
    </output>
  );
}

const { apiUrl, apiKey, skill, emails } = await ask<Inbox>("/api/inbox");
// The page's key is valid for a day. With the skill as the owner, the next key still sends what waits in the browser.
const rlaas = new Rlaas({ apiUrl, apiKey, owner: skill });
createRoot(document.getElementById("root")!).render(<App rlaas={rlaas} emails={emails} />);
