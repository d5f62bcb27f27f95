import { type ReactNode, useEffect } from "react";
import { Link } from "wouter";
import { Icon } from "./icons";

interface PageProps {
  title: string;
  text?: ReactNode;
  /** The page that this one is below. */
  back?: { to: string; name: string };
  actions?: ReactNode;
  /** Take the whole window, for a page whose parts scroll by themselves. */
  fill?: boolean;
  children: ReactNode;
}

/** A page's head and body; names the browser's tab. */
export function Page({ title, text, back, actions, fill = false, children }: PageProps) {
  useEffect(() => {
    document.title = `${title} · stillroom`;
  }, [title]);
  return (
    <div className="page" data-fill={fill || undefined}>
      <header className="page-head">
        <div>
          {back && (
            <Link href={back.to} className="page-back">
              <Icon name="back" />
              <span className="said">{back.name}</span>
            </Link>
          )}
          <h1 className="said">{title}</h1>
          {text && <p className="page-text">{text}</p>}
        </div>
        {actions && <div className="row">{actions}</div>}
      </header>
      {children}
    </div>
  );
}
