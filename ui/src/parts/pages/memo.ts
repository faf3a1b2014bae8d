/** A component that is made again only when one of its properties is another. */
import { Component, type ComponentType, h } from "preact";

export function memo<P extends object>(view: ComponentType<P>): ComponentType<P> {
  return class Memo extends Component<P> {
    shouldComponentUpdate(next: Readonly<P>): boolean {
      const now = this.props as Record<string, unknown>;
      const then = next as Record<string, unknown>;
      const names = Object.keys(then);
      return names.length !== Object.keys(now).length || names.some((name) => now[name] !== then[name]);
    }
    render() {
      return h(view, this.props as P & { children?: never });
    }
  };
}
